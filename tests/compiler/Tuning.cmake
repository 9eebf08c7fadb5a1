# The tuning database.
quern_mlir_test(tuning_database_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/tuning_database_test.cc
  LINK quern_tuning GTest::gtest_main)
