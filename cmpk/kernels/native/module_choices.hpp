// The part of the module that chooses codes and values, at pack time only.
#pragma once

#include <nanobind/nanobind.h>

namespace cmpk {

void define_choices(nanobind::module_& m);

}  // namespace cmpk
