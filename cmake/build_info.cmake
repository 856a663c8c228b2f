# What `rubato --version` says of this build. One small file is compiled with it.
set(platform "${CMAKE_HOST_SYSTEM_NAME}")
if(EXISTS /etc/os-release)
  file(STRINGS /etc/os-release lines REGEX "^PRETTY_NAME=")
  string(REGEX REPLACE "^PRETTY_NAME=" "" platform "${lines}")
  string(REGEX REPLACE "[^A-Za-z0-9 ./()_+,:-]" "" platform "${platform}")
endif()
string(APPEND platform ", ${CMAKE_SYSTEM_PROCESSOR}")

set(commit "")
find_package(Git QUIET)
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${PROJECT_SOURCE_DIR} rev-parse --short=12 HEAD
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${PROJECT_SOURCE_DIR} rev-parse --path-format=absolute --git-path logs/HEAD
                  OUTPUT_VARIABLE moves OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(moves AND EXISTS ${moves})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${moves})
  endif()
endif()

string(REPLACE "GNU" "g++" compiler "${CMAKE_CXX_COMPILER_ID}")
set(type "${CMAKE_BUILD_TYPE}")
if(RUBATO_SANITIZER)
  string(APPEND type " with sanitizers ${RUBATO_SANITIZER}")
endif()
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/core/build_info.cpp TARGET_DIRECTORY rubato_core PROPERTIES COMPILE_DEFINITIONS
  "RUBATO_VERSION=\"${PROJECT_VERSION}\";RUBATO_TORCH_VERSION=\"${RUBATO_TORCH_VERSION}\";RUBATO_COMPILER=\"${compiler} ${CMAKE_CXX_COMPILER_VERSION}\";RUBATO_BUILD_TYPE=\"${type}\";RUBATO_PLATFORM=\"${platform}\";RUBATO_COMMIT=\"${commit}\"")
