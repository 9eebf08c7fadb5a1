#include "codegen/artifact/CompileError.h"

#include "llvm/Support/raw_ostream.h"

using namespace quern;

char CompileError::ID = 0;

void CompileError::log(llvm::raw_ostream &os) const { os << text; }

std::error_code CompileError::convertToErrorCode() const {
  return llvm::inconvertibleErrorCode();
}

llvm::Error quern::compileError(ExitCode code, const llvm::Twine &message) {
  return llvm::make_error<CompileError>(code, message.str());
}
