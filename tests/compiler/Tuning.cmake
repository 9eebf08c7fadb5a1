# The tuning database and the tiles that are tried.
quern_mlir_tool(tuning_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/tile_space_test.cc ${CMAKE_CURRENT_LIST_DIR}/tuning_database_test.cc
  LINK quern_tuning GTest::gtest_main)
add_test(NAME tuning_test COMMAND tuning_test)
