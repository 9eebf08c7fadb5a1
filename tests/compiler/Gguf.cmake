quern_runtime_test(gguf_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/gguf_test.cc LINK quern_gguf)
quern_runtime_test(model_families_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/model_families_test.cc
  LINK quern_gguf)
quern_runtime_test(import_memory_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/import_memory_test.cc
  LINK quern_gguf quern_failing_new)
