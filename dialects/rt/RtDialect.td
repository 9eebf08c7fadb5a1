//===- RtDialect.td - The dialect of runtime programs -------*- tablegen -*-===//
//
// What the runtime executes: kernels and the lists that dispatch them over
// buffers. One op here is one record of runtime/schema/artifact.fbs.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_RT_RTDIALECT_TD
#define QUERN_DIALECTS_RT_RTDIALECT_TD

include "mlir/IR/DialectBase.td"

def Rt_Dialect : Dialect {
  let name = "rt";
  let cppNamespace = "::quern::rt";
  let summary = "Runtime programs: kernels, buffers and dispatch lists";
  let dependentDialects = ["::quern::lm::LmDialect"];
  let useDefaultAttributePrinterParser = 1;
  let extraClassDeclaration = [{
    void registerAttributes();
  }];
}

#endif // QUERN_DIALECTS_RT_RTDIALECT_TD
