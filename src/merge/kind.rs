//! Families of types that compare in the same way, by type OID.

/// What a column's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    /// text, varchar, name.
    Text,
    /// Trailing blanks do not count.
    Bpchar,
    /// The one-byte type `"char"`.
    Char,
    Bytea,
    /// Fixed width and lower-case digits in text: uuid, macaddr.
    Fixed,
    Date,
    Timestamp,
    Timestamptz,
    Time,
    Timetz,
    Interval,
    /// inet and cidr.
    Inet,
    Bits,
    /// An array whose elements are equal if and only if their bytes are.
    Array,
    Other,
}

impl Kind {
    pub(super) fn of(type_oid: u32) -> Self {
        match type_oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            19 | 25 | 1043 => Self::Text,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            26 => Self::Oid,
            700 => Self::Float4,
            701 => Self::Float8,
            650 | 869 => Self::Inet,
            774 | 829 | 2950 => Self::Fixed,
            1042 => Self::Bpchar,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1186 => Self::Interval,
            1266 => Self::Timetz,
            1560 | 1562 => Self::Bits,
            1700 => Self::Numeric,
            1000 | 1005 | 1007 | 1009 | 1015 | 1016 | 2951 => Self::Array,
            _ => Self::Other,
        }
    }

    pub(super) fn has_equality(self) -> bool {
        self != Self::Other
    }

    pub(super) fn has_order(self) -> bool {
        !matches!(self, Self::Other | Self::Array)
    }

    /// Whether a collation decides the order.
    pub(super) fn is_collated(self) -> bool {
        matches!(self, Self::Text | Self::Bpchar)
    }
}

/// The type as a person knows it.
pub(super) fn type_name(type_oid: u32) -> String {
    let name = match type_oid {
        16 => "boolean",
        17 => "bytea",
        19 => "name",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        25 => "text",
        114 => "json",
        142 => "xml",
        600 => "point",
        700 => "real",
        701 => "double precision",
        790 => "money",
        1042 => "character",
        1043 => "character varying",
        1082 => "date",
        1114 => "timestamp",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1700 => "numeric",
        2205 => "regclass",
        2950 => "uuid",
        3802 => "jsonb",
        1000 | 1005 | 1007 | 1009 | 1015 | 1016 | 1231 | 2951 => "array",
        _ => return format!("type with OID {type_oid}"),
    };
    format!("type {name}")
}
