/* Runs an artifact from plain C: run_artifact ARTIFACT [FLOATS]. FLOATS is a raw file of the first
 * input; without it, zeros. Prints the largest answers of the first output. */
#include <stdio.h>
#include <stdlib.h>

#include "repquant/runtime/c_api.h"

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, rq_last_error());
  return 1;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: run_artifact ARTIFACT [FLOATS]\n");
    return 2;
  }
  rq_program* program = NULL;
  rq_session* session = NULL;
  if (rq_program_open(argv[1], NULL, 0, &program) != RQ_OK) return fail("open");
  if (rq_session_create(program, 1, 1, &session) != RQ_OK) return fail("session");

  const int64_t in = rq_program_input_size(program, 0), out = rq_program_output_size(program, 0);
  float* x = calloc((size_t)in, sizeof(float));
  float* y = calloc((size_t)out, sizeof(float));
  if (x == NULL || y == NULL) return 1;
  if (argc > 2) {
    FILE* file = fopen(argv[2], "rb");
    if (file == NULL || fread(x, sizeof(float), (size_t)in, file) != (size_t)in) {
      fprintf(stderr, "%s: expected %lld floats\n", argv[2], (long long)in);
      return 1;
    }
    fclose(file);
  }
  const void* inputs[] = {x};
  void* outputs[] = {y};
  if (rq_session_run(session, 1, inputs, outputs) != RQ_OK) return fail("run");

  int64_t best = 0;
  for (int64_t i = 1; i < out; ++i) best = y[i] > y[best] ? i : best;
  printf("isa %s: answer %lld of %lld, %.6f\n", rq_program_isa(program), (long long)best,
         (long long)out, (double)y[best]);
  free(x);
  free(y);
  rq_session_destroy(session);
  rq_program_close(program);
  return 0;
}
