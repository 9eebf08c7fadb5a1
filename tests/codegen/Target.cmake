quern_runtime_test(target_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/target_test.cc LINK quern_target)
