# The targets of the runtime, which never sees LLVM; those of the compiler are in QuernMLIR.cmake.

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

# Precompiled headers for development: the standard library's and GoogleTest's take a third of the time
# of a build with sanitizers. Releases, and GCC, do without: there a forgotten #include shows.
set(QUERN_PRECOMPILE FALSE)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang AND NOT CMAKE_BUILD_TYPE STREQUAL Release)
  set(QUERN_PRECOMPILE TRUE)
endif()
set(QUERN_RUNTIME_HEADER ${CMAKE_CURRENT_LIST_DIR}/runtime_pch.h)

# quern_header_owner(NAME HEADERS...): a target whose precompiled headers others use.
function(quern_header_owner name)
  add_library(${name} STATIC EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
  target_precompile_headers(${name} PRIVATE ${ARGN})
  target_link_libraries(${name} PRIVATE quern_options)
endfunction()

# quern_reuse_headers(EXECUTABLE OWNER): it uses OWNER's precompiled headers, which were made with -fPIC
# rather than CMake's -fPIE.
function(quern_reuse_headers name owner)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE -fPIC)
  target_precompile_headers(${name} REUSE_FROM ${owner})
endfunction()

if(QUERN_PRECOMPILE)
  quern_header_owner(quern_runtime_headers ${QUERN_RUNTIME_HEADER})
endif()

# quern_runtime_library(NAME SOURCES... [LINK libs...] [OPTIONS of the compiler...]): a static library
# of the runtime. Its include root is the repository.
function(quern_runtime_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;OPTIONS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/runtime/include
    ${PROJECT_BINARY_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} PRIVATE quern_options)
  target_compile_options(${name} PRIVATE ${ARG_OPTIONS})
  if(QUERN_PRECOMPILE AND ARG_OPTIONS) # precompiled headers serve one set of options
    target_precompile_headers(${name} PRIVATE ${QUERN_RUNTIME_HEADER})
  elseif(QUERN_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM quern_runtime_headers)
  endif()
endfunction()

# quern_cold_code(TARGET): a release is built for size. For code that runs once a file or once a
# request; it halves it.
function(quern_cold_code target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-Os>)
endfunction()

# quern_sanitized_caller(TARGET): with sanitizers it is built unoptimised, in half the time. For what
# calls the code under test, and costs no time itself.
function(quern_sanitized_caller target)
  if(QUERN_SANITIZE)
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

# quern_runtime_test(NAME SOURCES... [LINK libs...]): one GoogleTest binary, registered with ctest.
function(quern_runtime_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main quern_options)
  quern_sanitized_caller(${name})
  if(QUERN_PRECOMPILE)
    quern_reuse_headers(${name} quern_test_headers)
  endif()
  add_test(NAME ${name} COMMAND ${name})
endfunction()
