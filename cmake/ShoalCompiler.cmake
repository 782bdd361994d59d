# One set of flags for every target: C++23, warnings are errors, floating point exactly as written.

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(SHOAL_CCACHE ccache)
if(SHOAL_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SHOAL_CCACHE})
endif()

add_library(shoal_options INTERFACE)
target_compile_options(shoal_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror
  -ffp-contract=off          # the numerics contract: FMA only where the code says fma
  -fno-math-errno
  -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports these inside its own headers on correct code (std::expected, std::string concatenation).
  target_compile_options(shoal_options INTERFACE -Wno-maybe-uninitialized -Wno-restrict -Wno-stringop-overflow
    -Wno-array-bounds -Wno-dangling-pointer)
endif()
target_compile_definitions(shoal_options INTERFACE
  BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_BOOST_COROUTINE BOOST_ERROR_CODE_HEADER_ONLY
  SHOAL_VERSION="${PROJECT_VERSION}")

set(SHOAL_SANITIZER "" CACHE STRING "address, thread or empty")
if(SHOAL_SANITIZER STREQUAL "address")
  target_compile_options(shoal_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(shoal_options INTERFACE -fsanitize=address,undefined)
elseif(SHOAL_SANITIZER STREQUAL "thread")
  target_compile_options(shoal_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(shoal_options INTERFACE -fsanitize=thread)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(shoal_options INTERFACE -Wno-tsan)  # Asio's fences, which g++'s sanitizer does not follow
  endif()
endif()

option(SHOAL_FUZZ "Build the libFuzzer targets (clang)" OFF)
if(SHOAL_FUZZ)
  add_custom_target(fuzzers)
  target_compile_options(shoal_options INTERFACE -fsanitize=fuzzer-no-link)  # every room reports its coverage
endif()

# A faster linker where there is one.
if(NOT APPLE)
  find_program(SHOAL_MOLD mold)
  if(SHOAL_MOLD AND NOT CMAKE_CROSSCOMPILING)
    target_link_options(shoal_options INTERFACE -fuse-ld=mold)
  endif()
  target_link_options(shoal_options INTERFACE -Wl,--gc-sections)
endif()
