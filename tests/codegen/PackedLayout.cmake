quern_runtime_test(packed_layout_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/packed_layout_test.cc
  LINK quern_packed_layout)
