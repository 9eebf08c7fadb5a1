# quern compile and quern import as a user meets them.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME compiler_command_line_test
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/command_line_test.py)
set_tests_properties(compiler_command_line_test PROPERTIES
  ENVIRONMENT "QUERN_COMPILE=$<TARGET_FILE:quern-compile>" TIMEOUT 600 COST 80)
