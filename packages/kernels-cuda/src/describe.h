// The devices of this machine, or why there is none.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernel.h"

namespace hotset {

struct DeviceInfo {
  std::string name;
  int64_t bytes;
  Device facts;
};

struct Machine {
  int runtime = 0, driver = 0;  // 13000 is 13.0; driver 0: none
  std::string reason;           // why there are no devices
  std::vector<DeviceInfo> devices;
};

Machine describe_machine();

}  // namespace hotset
