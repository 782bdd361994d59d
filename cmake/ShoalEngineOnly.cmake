# The libraries of an engine built for another processor, from this machine's headers and sources: fmt and Boost as
# headers, which hold nothing of the processor, and GoogleTest as Debian's source package has it.

set(host_headers ${PROJECT_BINARY_DIR}/host_headers)
file(MAKE_DIRECTORY ${host_headers})
foreach(library fmt boost)
  find_path(${library}_parent ${library} PATHS /usr/include /usr/local/include NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH REQUIRED)
  file(CREATE_LINK ${${library}_parent}/${library} ${host_headers}/${library} SYMBOLIC)
endforeach()
set(Boost_INCLUDE_DIRS ${host_headers})
add_library(fmt_headers INTERFACE)
add_library(fmt::fmt ALIAS fmt_headers)
target_include_directories(fmt_headers SYSTEM INTERFACE ${host_headers})
target_compile_definitions(fmt_headers INTERFACE FMT_HEADER_ONLY)

if(SHOAL_TESTS)
  enable_testing()
  enable_language(C)  # GoogleTest's project names it
  set(SHOAL_GOOGLETEST /usr/src/googletest CACHE PATH "GoogleTest's sources")
  set(INSTALL_GTEST OFF)
  add_subdirectory(${SHOAL_GOOGLETEST} ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gmock)
    add_library(GTest::gmock ALIAS gmock)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
endif()
