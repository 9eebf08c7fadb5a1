//===- Random.h - Inputs and weights made from a seed -----------*- C++ -*-===//
//
// Every number is a function of (seed, name, position), so that two modules
// that name the same weight read the same numbers.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_REFERENCE_RANDOM_H
#define QUERN_DIALECTS_REFERENCE_RANDOM_H

#include "dialects/reference/Interpreter.h"

namespace quern::reference {

/// `count` floats, uniform in [-1, 1).
std::vector<float> randomFloats(uint64_t seed, llvm::StringRef name,
                                int64_t count);

/// A provider of random weights of sensible size: rows of matrices have unit
/// norm or so, norms are near 1, biases near 0. Formats that quantizeRow() can
/// write hold rounded floats (first rounded to the weight's source), the
/// others random codes under small scales.
WeightProvider randomWeights(uint64_t seed);

} // namespace quern::reference

#endif // QUERN_DIALECTS_REFERENCE_RANDOM_H
