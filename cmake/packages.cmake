# rubato_package(NAME MODULE [REQUIRED]): target PkgConfig::NAME for a pkg-config module, and NAME_FOUND. Installed too.
#
# Only the module's own include folder counts. Those of what it is linked with in turn (of libzmq: Kerberos, libxml2, ...) are not needed, and
# CMake moves one of them from one variable to another when it runs for the second time, so that half of the files are compiled again.
function(rubato_package name module)
  pkg_check_modules(${name} IMPORTED_TARGET GLOBAL ${ARGN} ${module})
  if(${name}_FOUND)
    set(folder "${${name}_INCLUDEDIR}")
    if(folder STREQUAL "/usr/include")
      set(folder "")
    endif()
    set_target_properties(PkgConfig::${name} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folder}" INTERFACE_COMPILE_OPTIONS "")
  endif()
  set(${name}_FOUND "${${name}_FOUND}" PARENT_SCOPE)
endfunction()
