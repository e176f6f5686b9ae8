target_link_libraries(repquant_data PRIVATE JPEG::JPEG PNG::PNG ZLIB::ZLIB PkgConfig::LIBZIP)
