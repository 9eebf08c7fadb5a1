"""Tests of IR: every .mlir below tests/ whose first lines say how to run it."""

import os

import lit.formats

config.name = "quern"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["inputs"]
config.test_source_root = os.path.dirname(__file__)

path = [config.quern_tools_dir, config.llvm_tools_dir, config.environment["PATH"]]
config.environment["PATH"] = os.pathsep.join(path)
