# -DGIT= -DSOURCE= -DOUTPUT=: a header that names the commit of SOURCE, rewritten only when it changes.
execute_process(COMMAND ${GIT} -C ${SOURCE} rev-parse --short HEAD
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define REPQUANT_COMMIT \"${commit}\"\n" @ONLY)
