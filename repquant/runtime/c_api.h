#pragma once
/* The runtime for other languages: opaque handles, plain data, no exceptions. Every function that
 * can fail returns 0 or a code of rq_status and leaves a message for rq_last_error() of the same
 * thread. Programs may be shared by threads; a session belongs to one caller at a time. */
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rq_program rq_program;
typedef struct rq_session rq_session;

enum rq_status {
  RQ_OK = 0,
  RQ_INVALID_ARGUMENT = 1,
  RQ_NOT_FOUND = 2,
  RQ_CORRUPT_FILE = 3,
  RQ_UNSUPPORTED = 4,
  RQ_RESOURCE_EXHAUSTED = 5,
  RQ_INTERNAL = 6,
  RQ_CANCELLED = 7
};

enum rq_type { RQ_F32 = 0, RQ_U8 = 1, RQ_I32 = 2, RQ_I64 = 3, RQ_OTHER_TYPE = 4 };

/* Reads and verifies an artifact. isa: "auto" (or NULL), or the name of an instruction set.
 * memory_cap: bytes of weights and of any session's memory; 0 for none. *program is NULL after a
 * failure. */
int rq_program_open(const char* path, const char* isa, uint64_t memory_cap, rq_program** program);
void rq_program_close(rq_program* program); /* NULL is allowed; sessions keep what they need */
const char* rq_program_isa(const rq_program* program);

/* Inputs and outputs in the artifact's order; sizes are elements of one item. For an index that is
 * not there: "", RQ_OTHER_TYPE, -1. Names live as long as the program. */
int32_t rq_program_inputs(const rq_program* program);
int32_t rq_program_outputs(const rq_program* program);
const char* rq_program_input_name(const rq_program* program, int32_t index);
const char* rq_program_output_name(const rq_program* program, int32_t index);
enum rq_type rq_program_input_type(const rq_program* program, int32_t index);
enum rq_type rq_program_output_type(const rq_program* program, int32_t index);
int64_t rq_program_input_size(const rq_program* program, int32_t index);
int64_t rq_program_output_size(const rq_program* program, int32_t index);
/* Writes up to `room` dimensions of one item and returns how many there are; -1: no such index. */
int32_t rq_program_input_shape(const rq_program* program, int32_t index, int64_t* dims,
                               int32_t room);
int32_t rq_program_output_shape(const rq_program* program, int32_t index, int64_t* dims,
                                int32_t room);

/* threads: 0 or 1 for the caller alone. */
int rq_session_create(rq_program* program, int64_t max_batch, int32_t threads,
                      rq_session** session);
void rq_session_destroy(rq_session* session); /* NULL is allowed */

/* inputs[i]: batch * rq_program_input_size(i) elements of its type, aligned to it; outputs likewise,
 * written. No two may overlap. No allocation when it succeeds. */
int rq_session_run(rq_session* session, int64_t batch, const void* const* inputs,
                   void* const* outputs);

/* From any thread: the run in progress, or else the next one, returns RQ_CANCELLED before its next
 * step and leaves its outputs unspecified. The session stays usable. */
void rq_session_cancel(rq_session* session);

/* Bytes of the session's own memory: activations and scratch, not weights. */
uint64_t rq_session_memory(const rq_session* session);

/* Of the last call of this thread that failed; empty before the first. Valid until the next one. */
const char* rq_last_error(void);

#ifdef __cplusplus
}
#endif
