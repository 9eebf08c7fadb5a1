# NVIDIA's assembler over every GPU kernel; skipped where there is none.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME ptxas_test COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/ptxas_test.py)
set_tests_properties(ptxas_test PROPERTIES PROCESSORS 2 COST 130 SKIP_RETURN_CODE 77 TIMEOUT 600
  ENVIRONMENT "QUERN=$<TARGET_FILE:quern-cli>")
