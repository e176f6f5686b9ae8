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
  RQ_INTERNAL = 6
};

/* Reads and verifies an artifact. isa: "auto" (or NULL), or the name of an instruction set.
 * *program is NULL after a failure. */
int rq_program_open(const char* path, const char* isa, rq_program** program);
void rq_program_close(rq_program* program); /* NULL is allowed; sessions keep what they need */
const char* rq_program_isa(const rq_program* program);

/* Inputs and outputs in the artifact's order. Sizes are elements of one item, all float32. */
int32_t rq_program_inputs(const rq_program* program);
int32_t rq_program_outputs(const rq_program* program);
int64_t rq_program_input_size(const rq_program* program, int32_t index);  /* -1: no such input */
int64_t rq_program_output_size(const rq_program* program, int32_t index); /* -1: no such output */

/* threads: 0 or 1 for the caller alone. */
int rq_session_create(rq_program* program, int64_t max_batch, int32_t threads,
                      rq_session** session);
void rq_session_destroy(rq_session* session); /* NULL is allowed */

/* inputs[i]: batch * rq_program_input_size(i) floats; outputs likewise, written. No allocation. */
int rq_session_run(rq_session* session, int64_t batch, const float* const* inputs,
                   float* const* outputs);

/* Of the last call of this thread that failed; empty before the first. Valid until the next one. */
const char* rq_last_error(void);

#ifdef __cplusplus
}
#endif
