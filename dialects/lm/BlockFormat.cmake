# Block formats, free of MLIR. Contraction is off: decoding is defined bit for bit.
quern_runtime_library(quern_block_format SOURCES ${CMAKE_CURRENT_LIST_DIR}/BlockFormat.cpp
  OPTIONS -ffp-contract=off)
