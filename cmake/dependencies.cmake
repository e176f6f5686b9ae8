# Every third-party dependency, with the reason; where each comes from: tools/bootstrap.sh.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)                       # text formatting
find_package(nlohmann_json REQUIRED)             # plans, reports, --json
find_package(tomlplusplus REQUIRED)              # recipes
find_package(CLI11 REQUIRED)                     # command line
find_package(JPEG REQUIRED)                      # images
find_package(PNG REQUIRED)
find_package(ZLIB REQUIRED)                      # .gz
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)  # .npz
find_package(OpenSSL REQUIRED COMPONENTS Crypto) # SHA-256

if(REPQUANT_ONNX)
  # By path: the torch package redefines protobuf::libprotobuf.
  find_path(REPQUANT_PROTOBUF_INCLUDE google/protobuf/message.h REQUIRED)
  find_library(REPQUANT_PROTOBUF_LIBRARY NAMES protobuf REQUIRED)
  find_path(REPQUANT_ONNX_INCLUDE onnx/onnx_pb.h REQUIRED)
  find_library(REPQUANT_ONNX_PROTO_LIBRARY NAMES onnx_proto REQUIRED)
  add_library(repquant_onnx_messages INTERFACE)
  target_include_directories(repquant_onnx_messages SYSTEM INTERFACE
    ${REPQUANT_ONNX_INCLUDE} ${REPQUANT_PROTOBUF_INCLUDE})
  target_compile_definitions(repquant_onnx_messages INTERFACE ONNX_NAMESPACE=onnx ONNX_ML=1)
  target_link_libraries(repquant_onnx_messages INTERFACE
    ${REPQUANT_ONNX_PROTO_LIBRARY} ${REPQUANT_PROTOBUF_LIBRARY} Threads::Threads)
endif()

if(REPQUANT_TORCH)
  set(REPQUANT_VENV "${CMAKE_SOURCE_DIR}/.venv" CACHE PATH "Python environment that holds torch")
  file(GLOB REPQUANT_TORCH_CMAKE "${REPQUANT_VENV}/lib/python3*/site-packages/torch/share/cmake/Torch")
  if(REPQUANT_TORCH_CMAKE)
    list(GET REPQUANT_TORCH_CMAKE 0 REPQUANT_TORCH_DIR)
    find_package(Torch REQUIRED PATHS "${REPQUANT_TORCH_DIR}" NO_DEFAULT_PATH)
  else()
    find_package(Torch REQUIRED)
  endif()
endif()

if(REPQUANT_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

find_program(REPQUANT_CCACHE ccache)
if(REPQUANT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${REPQUANT_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${REPQUANT_CCACHE})
endif()
find_program(REPQUANT_MOLD mold)
if(REPQUANT_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
