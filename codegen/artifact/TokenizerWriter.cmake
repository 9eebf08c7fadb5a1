# The tokenizer segment's writer, free of MLIR and LLVM.
quern_runtime_library(quern_tokenizer_writer
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/TokenizerWriter.cpp
  LINK quern_schema)
