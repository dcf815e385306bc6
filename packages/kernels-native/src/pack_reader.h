// Case packs (packages/core/src/testing/pack.ts) for the runners that replay them: the cases, what their outputs are
// judged by, and the list of what ran that support.json is compared with.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace hotset {

[[noreturn]] inline void stop(const std::string& message) {
  std::fprintf(stderr, "hotset runner: %s\n", message.c_str());
  std::exit(2);
}

inline std::vector<char> read_file(const char* path) {
  std::FILE* const file = std::fopen(path, "rb");
  if (!file) stop(std::string("cannot open ") + path);
  std::vector<char> data;
  char part[1 << 16];
  for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) data.insert(data.end(), part, part + n);
  std::fclose(file);
  return data;
}

enum Role : int64_t { role_in, role_out, role_inout, role_absent };

struct PackTensor {
  Role role = role_absent;
  int64_t element = 1;
  int64_t shift = 0;  // elements off alignment
  std::vector<char> initial, expected, within;
  int64_t mode = 0;

  size_t size() const { return role == role_out ? expected.size() : initial.size(); }

  // Outputs are poisoned, inputs as given.
  void fill(char* data) const {
    if (size() == 0) return;
    if (role == role_out) std::memset(data, 0xff, size());
    else if (role != role_absent) std::memcpy(data, initial.data(), size());
  }

  std::string wrong(const std::string& name, const char* data) const {
    if (role == role_absent) return "";
    if (role == role_in) return size() && std::memcmp(data, initial.data(), size()) ? "input " + name + " was written" : "";
    for (size_t i = 0; i < expected.size() / size_t(element); i++) {
      const char* const got = data + i * size_t(element);
      const char* const want = expected.data() + i * size_t(element);
      if (!std::memcmp(got, want, size_t(element))) continue;
      std::string values;
      if (mode == 1) {
        float a, b, limit;
        std::memcpy(&a, got, 4);
        std::memcpy(&b, want, 4);
        std::memcpy(&limit, within.data() + i * 4, 4);
        if (a == b || (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= limit) continue;
        values = " (" + std::to_string(a) + ", expected " + std::to_string(b) + " within " + std::to_string(limit) + ")";
      }
      return name + "[" + std::to_string(i) + "] differs" + values;
    }
    return "";
  }
};

struct PackCase {
  std::string name, symbol;
  std::vector<char> capacity, actual;  // parameter structs
  int64_t pointers_at = 0;             // where the pointer of each tensor lies in them: in port order
  std::vector<PackTensor> tensors;
  int64_t fault_code = 0, fault_port = 0, fault_index = 0, fault_value = 0;

  void set_pointer(size_t tensor, const void* address) {
    for (std::vector<char>* params : {&capacity, &actual}) std::memcpy(params->data() + size_t(pointers_at) + 8 * tensor, &address, 8);
  }
};

// The pack's bytes; every length is compared with what is left before it is used.
class PackReader {
 public:
  explicit PackReader(const char* path) : data_(read_file(path)) {
    if (std::memcmp(take(8), "HSPACK1\n", 8)) stop("not a case pack");
    cases = number();
  }
  int64_t cases;

  PackCase next() {
    PackCase c;
    c.name = text();
    c.symbol = text();
    c.capacity = bytes();
    c.actual = bytes();
    c.pointers_at = number();
    const int64_t tensors = number();
    if (tensors < 0 || c.pointers_at < 0 || tensors > 64 || c.pointers_at + 8 * tensors > int64_t(c.capacity.size()) || c.capacity.size() != c.actual.size())
      stop("the pack is damaged");
    c.tensors.resize(size_t(tensors));
    for (PackTensor& t : c.tensors) {
      t.role = Role(number());
      if (t.role == role_absent) continue;
      t.element = number();
      t.shift = number();
      t.initial = bytes();
      t.expected = bytes();
      t.mode = number();
      if (t.mode == 1) t.within = bytes();
    }
    c.fault_code = number();
    c.fault_port = number();
    c.fault_index = number();
    c.fault_value = number();
    return c;
  }

 private:
  int64_t number() {
    int64_t value;
    std::memcpy(&value, take(8), 8);
    return value;
  }
  std::string text() {
    const int64_t length = number();
    const char* const at = take(length);
    pad();
    return std::string(at, size_t(length));
  }
  std::vector<char> bytes() {
    const int64_t length = number();
    const char* const at = take(length);
    pad();
    return std::vector<char>(at, at + length);
  }
  const char* take(int64_t length) {
    if (length < 0 || length > int64_t(data_.size()) - at_) stop("the pack is truncated");
    const char* const at = data_.data() + at_;
    at_ += length;
    return at;
  }
  void pad() { at_ = (at_ + 7) & ~int64_t(7); }
  std::vector<char> data_;
  int64_t at_ = 0;
};

// "op | variant" to the kernels that ran: what support.json has rows for.
class Ran {
 public:
  void add(const std::string& name, const char* kernel) {
    const size_t variant_end = name.find(" | ", name.find(" | ") + 3);
    ran_[name.substr(0, variant_end)].insert(kernel);
  }
  void print(const std::string& target) const {
    std::printf("[");
    const char* comma = "";
    for (const auto& [key, kernels] : ran_) {
      const size_t bar = key.find(" | ");
      std::printf("%s{\"op\":\"%s\",\"variant\":\"%s\",\"target\":\"%s\",\"kernels\":[", comma, key.substr(0, bar).c_str(), key.substr(bar + 3).c_str(), target.c_str());
      const char* inner = "";
      for (const std::string& kernel : kernels) std::printf("%s\"%s\"", inner, kernel.c_str()), inner = ",";
      std::printf("]}");
      comma = ",";
    }
    std::printf("]\n");
  }

 private:
  std::map<std::string, std::set<std::string>> ran_;
};

}  // namespace hotset
