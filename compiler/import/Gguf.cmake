# Readers of model files, free of MLIR and LLVM.
quern_runtime_library(quern_gguf
  SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/Gguf.cpp
    ${CMAKE_CURRENT_LIST_DIR}/GgufText.cpp
    ${CMAKE_CURRENT_LIST_DIR}/GgufTokenizer.cpp
    ${CMAKE_CURRENT_LIST_DIR}/GgufValue.cpp
    ${CMAKE_CURRENT_LIST_DIR}/MappedFile.cpp
    ${CMAKE_CURRENT_LIST_DIR}/ModelFamilies.cpp
    ${CMAKE_CURRENT_LIST_DIR}/ModelTensors.cpp
  LINK quern_block_format)
