//! Every limit the formats carry, named once. A length is compared with one of these before
//! anything is allocated for it.

/// A whole remoting frame with its length word: RocketMQ's `frameMaxLength`.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A frame's header: names, ids, an expression and properties. RocketMQ has no limit but the 24 bits of its length; but a
/// header is parsed in one go, and nothing else is done meanwhile.
pub const FRAME_HEADER_BYTES_MAX: usize = 1 << 20;
/// A message body as producers may send it: RocketMQ's `maxMessageSize`.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Encoded properties: what a signed short can say.
pub const PROPERTIES_BYTES_MAX: usize = 32_767;
/// A stored message: body, names, properties and the room a server needs to add its own.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// A topic as users may name it.
pub const TOPIC_BYTES_MAX: usize = 127;
/// A `%RETRY%` or `%DLQ%` topic, which carries a whole group name.
pub const RETRY_TOPIC_BYTES_MAX: usize = 255;
/// A consumer or producer group.
pub const GROUP_BYTES_MAX: usize = 120;
/// A client's id: its address, an instance's and a unit's name.
pub const CLIENT_ID_BYTES_MAX: usize = 255;
/// All attributes of a topic or a group together, keys and values.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// A filter expression: RocketMQ has no limit here.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// Distinct tags of one filter expression: a pull that waits is listed under each.
pub const EXPRESSION_TAGS_MAX: usize = 1_024;
/// The longest topic that fits the first encoding of a message, whose length is one signed byte.
pub const TOPIC_V1_BYTES_MAX: usize = 127;
/// Messages a single PULL may ask for (`pullBatchMaxMessageCount`).
pub const PULL_MESSAGES_MAX: usize = 160;
/// Messages a single POP may ask for.
pub const POP_MESSAGES_MAX: usize = 32;
/// Batches in one BATCH_ACK_MESSAGE.
pub const ACKS_MAX: usize = 1_024;
/// Messages of one of them: a pop gives no more.
pub const ACK_MESSAGES_MAX: usize = POP_MESSAGES_MAX;
/// Characters of the bit set of one of them: offsets up to 12,288 behind the first of a batch, whose messages span 800 units.
pub const BIT_SET_CHARS_MAX: usize = 2_048;
/// Messages a single QUERY_MESSAGE may ask for (`maxMsgsNumBatch`).
pub const QUERY_MESSAGES_MAX: usize = 64;
/// Fields of a header: RocketMQ's have thirty at most, and tools add a few.
pub const HEADER_FIELDS_MAX: usize = 1_024;
/// JSON objects in a client's body. The smallest has three bytes with its comma and more than a hundred in memory.
pub const BODY_OBJECTS_MAX: usize = 16_384;
/// Queues in one request to lock or unlock them, each a JSON object.
pub const LOCK_QUEUES_MAX: usize = 65_536;
/// Consumer groups, and as many producer groups, in one heartbeat.
pub const HEARTBEAT_GROUPS_MAX: usize = 1_024;
/// Subscriptions of one group in one heartbeat.
pub const SUBSCRIPTIONS_MAX: usize = 4_096;
/// Tags of one subscription, and as many codes of them.
pub const TAGS_MAX: usize = 4_096;
/// Topics, or groups, that one request may create.
pub const CONFIGS_MAX: usize = 1_000;
/// Attributes of a topic or a group.
pub const ATTRIBUTES_MAX: usize = 256;
/// Times in a group's policy of retries: RocketMQ has eighteen levels.
pub const RETRY_TIMES_MAX: usize = 256;
