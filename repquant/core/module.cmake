target_link_libraries(repquant_core PRIVATE OpenSSL::Crypto)
