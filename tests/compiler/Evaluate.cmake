# Needs nothing of the compiler but one file.
quern_runtime_test(distribution_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/distribution_test.cc
    ${PROJECT_SOURCE_DIR}/compiler/evaluate/Distribution.cpp)
