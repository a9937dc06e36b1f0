//! What a caller is told of its mistakes.

use coord_common::id::WorkerId;
use coord_proto::convert::parse;

#[test]
fn a_mistake_of_any_size_is_told_in_a_status_that_fits_into_a_header() {
    for text in ["/".repeat(1 << 20), "ü".repeat(1 << 20)] {
        let malformed = parse::<WorkerId>("worker", &text).unwrap_err();
        let status = tonic::Status::from(malformed);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().len() < 1000, "{} bytes", status.message().len());
        assert!(status.message().starts_with("malformed message: `worker`"), "{}", status.message());
        assert!(status.message().ends_with('…'));
    }
}
