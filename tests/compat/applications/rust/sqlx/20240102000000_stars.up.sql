ALTER TABLE reviews ADD COLUMN stars integer NOT NULL DEFAULT 5;
CREATE INDEX reviews_stars ON reviews (stars);
