"""The storage server of the embedded Supabase: buckets and objects, as far as clients need them."""
