# Kernels run as the executor runs them, on every target that this machine can run.
quern_mlir_library(quern_kernel_harness SOURCES ${CMAKE_CURRENT_LIST_DIR}/kernel_harness.cc ${CMAKE_CURRENT_LIST_DIR}/kernel_proof.cc
    ${CMAKE_CURRENT_LIST_DIR}/kv_page.cc ${CMAKE_CURRENT_LIST_DIR}/ptx_harness.cc
  LINK quern_host_codegen quern_ptx_codegen quern_amx_emulator quern_device_gpu quern_ptx_emulator GTest::gtest)

# quern_kernel_test(NAME): a GoogleTest binary from NAME.cc. It sees no MLIR: the harness does.
function(quern_kernel_test name)
  quern_runtime_test(${name} SOURCES ${name}.cc LINK quern_kernel_harness)
endfunction()

quern_kernel_test(attention_kernel_test)
quern_kernel_test(amx_matmul_kernel_test)
quern_kernel_test(fixed_cache_kernel_test)
quern_kernel_test(fp8_matmul_kernel_test)
quern_kernel_test(int8_cache_kernel_test)
quern_kernel_test(matmul_kernel_test)
quern_kernel_test(rowwise_kernel_test)
quern_kernel_test(tensor_matmul_kernel_test)
quern_kernel_test(top_k_kernel_test)
# The longest start first (seconds, about): a run of two at a time ends without one that goes on alone.
set_tests_properties(attention_kernel_test PROPERTIES COST 100)
set_tests_properties(matmul_kernel_test PROPERTIES COST 70)
set_tests_properties(tensor_matmul_kernel_test PROPERTIES COST 30)
