target_link_libraries(repquant_load PRIVATE repquant_onnx_messages)
# The tests build messages too; their program does not exist yet.
if(REPQUANT_TESTS)
  cmake_language(DEFER CALL target_link_libraries load_test PRIVATE repquant_onnx_messages)
endif()
