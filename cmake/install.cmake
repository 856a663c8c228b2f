include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(installed rubato_public rubato_all rubato_app rubato_core rubato_io rubato_context rubato_model rubato_zoo rubato_wire rubato_data rubato_replica rubato_schedules rubato_couplings
  rubato_collectives rubato_runtimes rubato_recording rubato_recording_messages rubato_transport rubato_transport_messages rubato_membership rubato_membership_messages rubato_cost rubato_observe
  rubato_observe_messages rubato_config rubato_checkpoint rubato_job rubato_monitor rubato_cluster rubato_train rubato_bootstrap rubato_launch rubato_compare
  rubato_vendor_light rubato_torch rubato_protobuf)
set_target_properties(rubato_public PROPERTIES EXPORT_NAME rubato)
install(TARGETS ${installed} EXPORT rubatoTargets)
# Two headers, which stand alone: the rooms are ours to change.
install(CODE "execute_process(COMMAND \"${CMAKE_COMMAND}\" -D \"INCLUDE=${PROJECT_SOURCE_DIR}/include\" -D \"OUT=${PROJECT_BINARY_DIR}/public\"
  -P \"${PROJECT_SOURCE_DIR}/cmake/amalgamate.cmake\" COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${PROJECT_BINARY_DIR}/public/rubato/rubato.h ${PROJECT_BINARY_DIR}/public/rubato/extend.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/rubato)
install(EXPORT rubatoTargets NAMESPACE rubato:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/rubato)
configure_package_config_file(cmake/rubatoConfig.cmake.in rubatoConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/rubato)
write_basic_package_version_file(rubatoConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/torch.cmake cmake/packages.cmake ${PROJECT_BINARY_DIR}/rubatoConfig.cmake ${PROJECT_BINARY_DIR}/rubatoConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/rubato)
