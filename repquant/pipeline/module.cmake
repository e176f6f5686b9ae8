target_link_libraries(repquant_pipeline PRIVATE tomlplusplus::tomlplusplus)
target_compile_definitions(repquant_pipeline PRIVATE REPQUANT_SOURCE_RECIPES="${CMAKE_SOURCE_DIR}/recipes")
