# The tuning database.
quern_mlir_tool(tuning_database_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/tuning_database_test.cc
  LINK quern_tuning GTest::gtest_main)
add_test(NAME tuning_database_test COMMAND tuning_database_test)
