// Fuzzing without libFuzzer: runs a target on a corpus and on what becomes of it, for a while.
//
//   <target> [--seconds S] [--runs R] [--seed N] [--input CURRENT] [FILE ...]
//
// Seconds are those of the processor, so that a busy machine does no less, and calls nothing a hang.
// Inputs that reach code that none before them reached are kept and changed further. The same seed
// and number of runs give the same inputs. CURRENT always holds the input that is being run: eight
// bytes of size, then the input; it is there whatever way the process ends.
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "random.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed);

namespace {

constexpr std::size_t kMaxInput = std::size_t{1} << 21;
constexpr std::size_t kMaxKept = 4096;
constexpr unsigned kInputSeconds = 20;     // an input that computes for longer is a hang: SIGPROF ends the process
constexpr unsigned kDeadlockSeconds = 600;  // and so is one that waits for longer: SIGALRM does
constexpr std::size_t kMapSize = std::size_t{1} << 14;

// How often each step from one place of the code to another was taken during an input.
std::array<std::uint8_t, kMapSize> steps;
thread_local std::size_t last_place = 0;

using Input = std::vector<std::uint8_t>;

struct Options {
  double seconds = 0;
  std::uint64_t runs = 0;
  std::uint64_t seed = 1;
  std::string input;
  std::vector<std::string> corpus;
};

}  // namespace

// The compiler has every place of the kernels and the target call this.
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
  // From a function's address on, for the whole program lies elsewhere each time.
  const auto place = reinterpret_cast<std::size_t>(__builtin_return_address(0)) -
                     reinterpret_cast<std::size_t>(&LLVMFuzzerTestOneInput);
  const std::size_t mixed = (place ^ place >> 14) & (kMapSize - 1);
  std::uint8_t& count = steps[mixed ^ last_place];
  if (count != 255) ++count;
  last_place = mixed >> 1;
}

namespace {

// Steps that some input took, by how often: once, twice, three times, 4 to 7, 8 to 15, ...
class Coverage {
 public:
  // Whether the last input took a step that none before it took as often.
  bool is_new() {
    bool found = false;
    for (std::size_t i = 0; i < kMapSize; ++i) {
      if (!steps[i]) continue;
      const unsigned n = steps[i];
      const auto bucket = static_cast<std::uint8_t>(1u << (n < 4     ? n - 1
                                                           : n < 8   ? 3
                                                           : n < 16  ? 4
                                                           : n < 32  ? 5
                                                           : n < 128 ? 6
                                                                     : 7));
      n_steps_ += !seen_[i];
      found |= !(seen_[i] & bucket);
      seen_[i] |= bucket;
    }
    return found;
  }
  std::size_t n_steps() const { return n_steps_; }

 private:
  std::array<std::uint8_t, kMapSize> seen_{};
  std::size_t n_steps_ = 0;
};

// The input that is being run, in a file that outlives the process.
class CurrentInput {
 public:
  explicit CurrentInput(const std::string& path) {
    if (path.empty()) return;
    std::FILE* const file = std::fopen(path.c_str(), "w+b");
    if (!file || ftruncate(fileno(file), 8 + kMaxInput)) {
      std::perror(path.c_str());
      std::exit(2);
    }
    void* const mapped = mmap(nullptr, 8 + kMaxInput, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    std::fclose(file);
    if (mapped != MAP_FAILED) memory_ = static_cast<std::uint8_t*>(mapped);
  }

  void set(const Input& input) {
    if (!memory_) return;
    const std::uint64_t size = input.size();
    std::memcpy(memory_, &size, sizeof size);
    std::copy(input.begin(), input.end(), memory_ + sizeof size);
  }

 private:
  std::uint8_t* memory_ = nullptr;
};

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0) {
      options.corpus.emplace_back(name);
      continue;
    }
    if (i + 1 == argc) {
      std::fprintf(stderr, "%s needs a value\n", name.c_str());
      std::exit(2);
    }
    const char* const value = argv[++i];
    if (name == "--seconds") {
      options.seconds = std::atof(value);
    } else if (name == "--runs") {
      options.runs = std::strtoull(value, nullptr, 10);
    } else if (name == "--seed") {
      options.seed = std::strtoull(value, nullptr, 10);
    } else if (name == "--input") {
      options.input = value;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      std::exit(2);
    }
  }
  return options;
}

std::vector<Input> read_corpus(const std::vector<std::string>& paths) {
  std::vector<Input> corpus;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "can't read %s\n", path.c_str());
      std::exit(2);
    }
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

void limit_seconds(unsigned computing, unsigned waiting) {
  const itimerval timer{{}, {static_cast<time_t>(computing), 0}};
  setitimer(ITIMER_PROF, &timer, nullptr);
  alarm(waiting);
}

void run(const Input& input, CurrentInput& current) {
  steps.fill(0);
  last_place = 0;
  current.set(input);
  limit_seconds(kInputSeconds, kDeadlockSeconds);
  LLVMFuzzerTestOneInput(input.data(), input.size());
  limit_seconds(0, 0);
}

// Seconds of the processor that this process has taken.
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  CurrentInput current(options.input);
  Coverage coverage;
  std::vector<Input> kept = read_corpus(options.corpus);
  std::vector<std::uint8_t> buffer(kMaxInput);
  std::uint64_t n_runs = 0;
  for (const Input& input : kept) {
    run(input, current);
    coverage.is_new();
    ++n_runs;
  }
  fuzz::Random random(options.seed);
  const double begin = cpu_seconds();
  const auto elapsed = [&] { return cpu_seconds() - begin; };
  for (std::uint64_t i = 0; i < options.runs || elapsed() < options.seconds; ++i) {
    std::size_t size = 0;
    if (!kept.empty() && !random.once_in(8)) {
      const Input& one = random.of(kept);
      const Input& other = random.of(kept);
      const Input& chosen = one.size() < other.size() ? one : other;  // small ones are run more quickly
      size = chosen.size();
      std::copy(chosen.begin(), chosen.end(), buffer.begin());
    }
    size = LLVMFuzzerCustomMutator(buffer.data(), size, kMaxInput, static_cast<unsigned>(random.next()));
    Input input(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
    run(input, current);
    ++n_runs;
    if (coverage.is_new() && kept.size() < kMaxKept) kept.push_back(std::move(input));
  }
  std::printf("runs %llu seconds %.1f kept %zu steps %zu\n", static_cast<unsigned long long>(n_runs), elapsed(),
              kept.size(), coverage.n_steps());
  return 0;
}
