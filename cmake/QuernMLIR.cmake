# Finds LLVM/MLIR 22 and gives quern_mlir_library(). Everything that depends on the LLVM version is
# in this file, in codegen/host and in codegen/ptx.
find_program(QUERN_LLVM_CONFIG NAMES llvm-config-22 REQUIRED)
execute_process(COMMAND ${QUERN_LLVM_CONFIG} --cmakedir OUTPUT_VARIABLE QUERN_LLVM_CMAKE
  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
set(LLVM_DIR ${QUERN_LLVM_CMAKE})
set(MLIR_DIR ${QUERN_LLVM_CMAKE}/../mlir)
# No version is asked for: the package's version file accepts only an equal major.minor.
find_package(MLIR REQUIRED CONFIG)
if(NOT LLVM_VERSION_MAJOR EQUAL 22)
  message(FATAL_ERROR "LLVM ${LLVM_VERSION} found, 22 wanted: install llvm-22-dev and libmlir-22-dev")
endif()
list(APPEND CMAKE_MODULE_PATH ${MLIR_CMAKE_DIR} ${LLVM_CMAKE_DIR})
set(MLIR_TABLEGEN_EXE mlir-tblgen-22)
find_program(MLIR_TABLEGEN_EXE_PATH NAMES mlir-tblgen-22 mlir-tblgen HINTS ${LLVM_TOOLS_BINARY_DIR} REQUIRED)
set(MLIR_TABLEGEN_EXE ${MLIR_TABLEGEN_EXE_PATH})
include(TableGen)
include(AddLLVM)
include(AddMLIR)

# The targets of the compiler, with one precompiled header for all (without it a file costs 6 seconds,
# with it 1.5).
add_library(quern_mlir_pch STATIC ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
target_include_directories(quern_mlir_pch SYSTEM PUBLIC ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
target_include_directories(quern_mlir_pch PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}
  ${PROJECT_SOURCE_DIR}/runtime/include)
separate_arguments(QUERN_LLVM_DEFINITIONS NATIVE_COMMAND ${LLVM_DEFINITIONS})
target_compile_definitions(quern_mlir_pch PUBLIC ${QUERN_LLVM_DEFINITIONS})
target_precompile_headers(quern_mlir_pch PRIVATE ${PROJECT_SOURCE_DIR}/cmake/pch.h)
target_link_libraries(quern_mlir_pch PUBLIC MLIR LLVM PRIVATE quern_options)

# quern_mlir_library(NAME SOURCES... [LINK libs...] [DEPENDS generated targets...])
function(quern_mlir_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_precompile_headers(${name} REUSE_FROM quern_mlir_pch)
  target_link_libraries(${name} PUBLIC ${ARG_LINK} quern_mlir_pch PRIVATE quern_options)
  if(ARG_DEPENDS)
    add_dependencies(${name} ${ARG_DEPENDS})
  endif()
endfunction()

# quern_mlir_tool(NAME SOURCES... LINK libs...): an executable of the compiler side.
function(quern_mlir_tool name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  quern_reuse_headers(${name} quern_mlir_pch)
  target_link_libraries(${name} PRIVATE ${ARG_LINK} quern_mlir_pch quern_options)
endfunction()
