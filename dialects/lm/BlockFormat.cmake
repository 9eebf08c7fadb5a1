# Block formats, free of MLIR.
quern_runtime_library(quern_block_format SOURCES ${CMAKE_CURRENT_LIST_DIR}/BlockFormat.cpp)
