quern_runtime_test(block_format_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/block_format_test.cc
  LINK quern_block_format)
target_compile_definitions(block_format_test PRIVATE QUERN_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
