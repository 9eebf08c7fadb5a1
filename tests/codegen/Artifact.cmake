# The artifact's weights segment.
quern_mlir_tool(weight_layout_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/weight_layout_test.cpp
  LINK quern_artifact_writer GTest::gtest_main)
add_test(NAME weight_layout_test COMMAND weight_layout_test)
