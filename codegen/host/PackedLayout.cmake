# The packed weight layout, free of MLIR and LLVM. Contraction is off: decoding is defined bit for bit.
quern_runtime_library(quern_packed_layout SOURCES ${CMAKE_CURRENT_LIST_DIR}/PackedLayout.cpp
  LINK quern_block_format OPTIONS -ffp-contract=off)
