# Readers of model files, free of MLIR and LLVM.
quern_runtime_library(quern_gguf
  SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/Gguf.cpp
    ${CMAKE_CURRENT_LIST_DIR}/MappedFile.cpp
    ${CMAKE_CURRENT_LIST_DIR}/ModelFamilies.cpp
  LINK quern_block_format)
