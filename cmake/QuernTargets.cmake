# The two kinds of target of the tree: runtime code, which never sees LLVM, and compiler code, which
# is built with a precompiled header because every MLIR file costs seconds without one.

add_library(quern_options INTERFACE)
target_compile_options(quern_options INTERFACE -Wall -Wextra -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # GCC 12 warns of std::string's own code (its bug 105651).
  target_compile_options(quern_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
# What nobody calls is dropped when linking: the runtime stays small.
target_compile_options(quern_options INTERFACE -ffunction-sections -fdata-sections)
target_link_options(quern_options INTERFACE -Wl,--gc-sections)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_link_options(quern_options INTERFACE -fuse-ld=lld)
endif()
if(QUERN_SANITIZE)
  target_compile_options(quern_options INTERFACE -fsanitize=${QUERN_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(quern_options INTERFACE -fsanitize=${QUERN_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
    # It reads a type from in front of a function's entry; kernels of artifacts have none there.
    target_compile_options(quern_options INTERFACE -fno-sanitize=function)
  endif()
endif()

# quern_runtime_library(NAME SOURCES... [LINK libs...]): a static library of the runtime. Its
# include root is the repository.
function(quern_runtime_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/runtime/include
    ${PROJECT_BINARY_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} PRIVATE quern_options)
endfunction()

# quern_cold_code(TARGET): a release is built for size. For code that runs once a file or once a
# request; it halves it.
function(quern_cold_code target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-Os>)
endfunction()

# quern_runtime_test(NAME SOURCES... [LINK libs...]): one GoogleTest binary, registered with ctest.
function(quern_runtime_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main quern_options)
  add_test(NAME ${name} COMMAND ${name})
endfunction()
