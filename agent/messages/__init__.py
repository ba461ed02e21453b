"""Values to protobuf messages, encoded answers, and errors to statuses."""
