"""The same ports, fake and seeded. Shipped, because drills and adapter authors use it."""
