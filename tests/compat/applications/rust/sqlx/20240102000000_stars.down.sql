DROP INDEX reviews_stars;
ALTER TABLE reviews DROP COLUMN stars;
