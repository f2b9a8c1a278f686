//! A header's fields on their way out, without a list of them in between.
//!
//! What has fields ([`Fields`]: every typed header, and [`ExtFields`](crate::ext::ExtFields)) hands them one by one to a
//! [`FieldWriter`]: an encoder, which writes them straight into the frame, or `ExtFields`, which
//! keeps them. Not here: how a serialization writes a field (`frame`), how fields are read (`ext`).

/// Takes fields in the order they shall have on the wire. No key is given twice.
pub trait FieldWriter {
    /// Takes one field.
    fn text(&mut self, key: &str, value: &str);

    /// Takes a field that is a number.
    fn number(&mut self, key: &str, value: i64) {
        self.text(key, itoa::Buffer::new().format(value));
    }
}

/// What has fields.
pub trait Fields {
    /// Hands all of them to `out`.
    fn write(&self, out: &mut impl FieldWriter);
}
